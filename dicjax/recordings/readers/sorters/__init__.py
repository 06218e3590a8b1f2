"""Files of spike sorters, simulators and toolboxes, each with a layout of its own."""
