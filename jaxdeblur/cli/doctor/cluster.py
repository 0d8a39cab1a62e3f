"""How this process would join others, and the variables that decide it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

from jaxdeblur.cli.doctor.common import Line, reason
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import cluster

# Also those that decide what JAX and its compiler do.
_VARIABLES = (
    *("JAX_*", "XLA_*", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    *("OMPI_COMM_WORLD_*", "PMI_RANK", "PMI_SIZE"),
    *("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "MEGASCALE_NUM_SLICES"),
    *("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
)
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


def lines() -> Iterator[Line]:
    try:
        launch = cluster.detect()
        yield Line("job", "alone" if launch is None else str(launch))
    except InputError as error:
        yield Line("job", reason(error), broken=True)
    remark = cluster.remark()
    if remark is not None:
        yield Line("remark", remark)
    for name, value in sorted(os.environ.items()):
        if any(fnmatchcase(name, pattern) for pattern in _VARIABLES):
            yield Line(name, value)
    # Their values may hold passwords.
    proxies = sorted(name for name in os.environ if name.lower() in _PROXIES)
    yield Line("proxies", f"{', '.join(proxies)} (values not shown)" if proxies else "none")
