"""Tables in files: CSV, Parquet, Arrow and Lance, read as columns."""
