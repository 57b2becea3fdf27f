"""What the launcher of a Flex Template runs, with the template's parameters as options."""

import sys

from contextframe_beam.pipelines.cli.main import main

main(["flex-template", *sys.argv[1:]])
