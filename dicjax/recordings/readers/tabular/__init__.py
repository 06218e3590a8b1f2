"""What cells, columns, rows and matrices of numbers hold, in files of any format."""
