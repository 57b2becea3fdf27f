"""Whole jobs, made from connectors and transforms, and the command line.

The main job is `contextframe_beam.pipelines.ingest.ingest`.
"""
