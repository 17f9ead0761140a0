# The commands of docs/plugins.md that tools/stranger.py runs, in a folder that holds model.onnx and the plugin's text.
# region: opencv
edgeprof plugins new my-opencv ./my-opencv --kind runtime
cp edgeprof_my_opencv.py my-opencv/src/
python -m pip install ./my-opencv opencv-python-headless
edgeprof plugins check my-opencv --model model.onnx --input input=1x3x32x32
edgeprof bench model.onnx --runtime my-opencv --input input=1x3x32x32
# endregion
