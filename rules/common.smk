# Names only: what a path is made of, and how a job starts.


wildcard_constraints:
    dataset=r"[^/]+",
    model=r"[^/]+",
    regularizer=r"[^/]+",
    run=r"\d+-[0-9a-f]{10}",
    # diagnostics-KEY.parquet and gallery-KEY.parquet are no suite's
    suite=r"(?!(diagnostics|gallery)-[0-9a-f]{10}\.)[^/]+",
    key=r"[0-9a-f]{10}",
    attack=r"[^/]+",
    piece=r"\d+",


# PATH's python may be another than Snakemake's.
shell.prefix(
    f"set -euo pipefail; PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
)

RUN = "results/{dataset}/{model}/{regularizer}/{run}"
REPORTS = bench.reports

# what a network is, wherever it was trained
NETWORK = {
    "best": f"{RUN}/best.safetensors",
    "last": f"{RUN}/last.safetensors",
    "curve": f"{RUN}/curve.csv",
    "record": f"{RUN}/run.json",
    "card": f"{RUN}/card.json",
}

# As many jobs per GPU as the config says, also when --resources on the command line names others.
# regbench.core.lease holds to it even where that is overruled.
workflow.global_resources.setdefault("gpu", bench.gpus)


resource_scopes:
    gpu="local",


# Jobs run in the environment that runs Snakemake. Only `--sdm apptainer` looks at this: an image of
# your own in which `pip install regbench` was done.
container: os.environ.get("REGBENCH_IMAGE", "docker://regbench")


onstart:
    bench.alone()
    # elsewhere there are other devices
    if workflow.local_exec:
        jobs = workflow.dag.needrun_jobs()
        bench.forecast(
            [str(path) for job in jobs for path in job.output], workflow.cores
        )


onerror:
    bench.tell_failures()
