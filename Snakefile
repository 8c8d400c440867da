import os
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from regbench.experiment.workflow import Bench

min_version("9.20")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "reports/workflow.rst"


bench = Bench(config, workflow.configfiles, talks=workflow.is_main_process)


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"


for path in sorted(Path(workflow.basedir, "rules/regularizers").glob("*.smk")):
    with bench.reading(path, workflow.rules):

        include: path


include: "rules/pretrained.smk"
include: "rules/attack.smk"
include: "rules/diagnose.smk"
include: "rules/results.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        bench.files(),
        TABLES,
        FIGURES,
        PAGE,
