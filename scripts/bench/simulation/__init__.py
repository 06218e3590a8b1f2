"""dicjax beside other simulators."""
