"""Single kernels measured on the device at hand, from which a forecast is calibrated."""
