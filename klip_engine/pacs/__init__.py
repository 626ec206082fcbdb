"""The service beside a PACS: receives studies, runs the detection, sends results back, loses nothing."""
