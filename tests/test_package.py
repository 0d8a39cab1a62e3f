import subprocess
import sys

import pytest

import jaxdeblur


def test_import_is_light():
    code = (
        "import sys; import jaxdeblur; "
        "heavy = {'jax', 'orbax', 'grain', 'tensorflow', 'tensorflow_datasets', 'PIL'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_networks_and_metrics_need_no_training_dependency():
    code = (
        "import sys, jaxdeblur; jaxdeblur.create_model('atrous_net'); jaxdeblur.metrics.psnr; "
        "jaxdeblur.load; jaxdeblur.convert.from_keras; "
        "heavy = {'orbax', 'grain', 'tensorflow_datasets', 'matplotlib', 'ml_collections'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist():
    for name in jaxdeblur.__all__:
        assert getattr(jaxdeblur, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = jaxdeblur.nothing
