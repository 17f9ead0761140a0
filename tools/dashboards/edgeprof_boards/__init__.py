"""The dashboards as readable Python; what ships is the JSON that ``python tools/dashboards/build.py`` makes of them."""
