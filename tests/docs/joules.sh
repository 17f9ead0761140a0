# The commands of docs/joules.md; test_pages.py runs them in a folder that holds examples/demo.
# region: truth
edgeprof simulate jetson-orin-nano --dir board --waveform square:2W,9W,800ms --duration 8 &
sleep 1
edgeprof run --sysfs-root board -- sleep 4
wait
# endregion
