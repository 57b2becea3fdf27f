"""Makes `python -m contextframe_beam` the same as `contextframe-beam`."""

from contextframe_beam.pipelines.cli.main import main

if __name__ == "__main__":
    main()
