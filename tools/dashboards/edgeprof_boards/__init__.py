"""The dashboards' definitions in Python; ``python tools/dashboards/build.py`` turns them into the JSON that ships."""
