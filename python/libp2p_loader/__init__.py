"""Gets a model's weights onto this machine from peers that nobody has to trust, and maps them.

>>> import libp2p_loader
>>> model = libp2p_loader.load(contract="0x…", rpc_urls=["https://…"])   # doctest: +SKIP
>>> model.path                                # what a runtime opens     # doctest: +SKIP
>>> model.tensors()["embeddings.weight"]      # numpy, without a copy    # doctest: +SKIP

Every byte is verified against the digest that the contract names, or that you give. Nothing is printed, and no logger is
installed: logs go to `logging`, to the loggers `libp2p_loader`, `node`, `loader`, `store`, `p2p_blob` and `chain_reader`; set their
levels before the first load, as they are remembered.
"""

from ._blobs import BlobStore
from ._core import BadUsage, Integrity, LoaderError, Unavailable, __version__
from ._files import File
from ._load import load, load_async, stream
from ._model import Model, Tensors
from ._node import Named, NamedModel, Node
from ._progress import Progress
from ._stream import TensorStream

__all__ = [
    "BadUsage",
    "BlobStore",
    "File",
    "Integrity",
    "LoaderError",
    "Model",
    "Named",
    "NamedModel",
    "Node",
    "Progress",
    "TensorStream",
    "Tensors",
    "Unavailable",
    "__version__",
    "load",
    "load_async",
    "stream",
]
