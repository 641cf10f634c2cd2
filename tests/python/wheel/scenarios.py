"""What the end-to-end tests do with the installed wheel: `scenarios.py NAME ARGUMENTS`, the arguments as JSON.

Each prints what it found as one line of JSON, or fails with a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import re
import signal
import sys
import threading
import time
import warnings

import numpy as np

import libp2p_loader
from libp2p_loader import BadUsage, Integrity, LoaderError, Progress, Unavailable

HERE = pathlib.Path(__file__)
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[3] / "python/examples")]
import bert  # noqa: E402
import real_inputs  # noqa: E402


def say(**values) -> None:
    print(json.dumps(values), flush=True)


def raises(kind, call) -> str:
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def digest_and_sum(model) -> tuple:
    """In another process."""
    return model.digest, float(sum(tensor.sum() for tensor in model.tensors().values()))


def minilm(contract: str, rpc: str, peers: list, cache: str, reference: str) -> None:
    """The whole way of a real model: named by a contract, fetched, mapped, run with numpy views of the map."""
    seen = []
    settings = dict(contract=contract, rpc_urls=rpc, block_tag="latest", peers=peers, cache_dir=cache, mdns=False)
    model = libp2p_loader.load(progress=seen.append, **settings)
    assert model.path.is_dir() and model.is_complete, model
    assert not model.report["from_cache"] and model.report["fetched_bytes"] > 0, model.report
    last = seen[-1]
    assert isinstance(last, Progress) and last.done == last.total > 0 and last.sources <= len(peers), last

    weights = model.tensors()
    assert not any(array.flags.writeable or array.flags.owndata for array in weights.values())
    config = json.loads(bytes(model.files["config.json"].view))
    assert open(model.files["config.json"]).read().startswith("{")
    wanted = json.loads(pathlib.Path(reference).read_text())
    tokenizer = real_inputs.tokenizer_of(model.path)
    got = bert.embed(config, weights, tokenizer, wanted["sentences"])
    worst = float(np.abs(got - np.array(wanted["embeddings"])).max())
    assert worst < 1e-5, worst

    # It goes to other processes by its name, and stays usable in a fork.
    here = digest_and_sum(model)
    assert digest_and_sum(pickle.loads(pickle.dumps(model))) == here
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(digest_and_sum, (model,)) == here, method
    # Threads share it.
    sums = []
    threads = [threading.Thread(target=lambda: sums.append(digest_and_sum(model))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sums == [here] * 4
    checked = libp2p_loader.load(verify="load", **settings)
    assert digest_and_sum(checked) == here == digest_and_sum(pickle.loads(pickle.dumps(checked)))
    assert all(array.flags.writeable for array in checked.tensors().values())
    again = libp2p_loader.load(**settings)
    assert again.report["from_cache"] and again.digest == model.digest
    say(digest=model.digest, worst=worst, tensors=len(weights))


def parts(manifest: str, peer: str, cache: str) -> None:
    """Every type of element, some files only, some rows only."""
    with libp2p_loader.Node(peers=peer, cache_dir=cache, mdns=False) as node:
        some = node.load(manifest, files="*.json", exclude="model.safetensors.index.json")
        assert not some.is_complete and set(some.files) == {"config.json"}, list(some.files)
        raises(BadUsage, lambda: pickle.dumps(some))
        loaded = node.load_tensors(["embed.*", "scalar"], manifest)
        assert set(loaded) == {"embed.weight", "scalar"} and loaded["scalar"] == 0.5, loaded
        whole = loaded["embed.weight"]
        rows = node.load_tensors("embed.weight", manifest, dim0=(10, 12))["embed.weight"]
        assert rows.shape == (2, 96) and (rows == whole[10:12]).all()
        rows[...] = 0
        model = node.load(manifest[:8])
        tensors = model.tensors()
        made = {name: facts for part in real_inputs.tensors_of_parts() for name, *facts in part}
        assert set(tensors) == set(made)
        kinds = set()
        for name, (dtype, shape, data) in made.items():
            assert (tensors.dtype(name), tensors.shape(name)) == (dtype, tuple(shape)), name
            assert bytes(tensors.bytes(name)) == data, name
            if dtype.startswith(("F4", "F6_")):
                assert dtype in raises(BadUsage, lambda: tensors[name])
                continue
            array = tensors[name]
            assert array.tobytes() == data and array.shape == tuple(shape) and not array.flags.writeable, name
            kinds.add(str(array.dtype))
        assert {"bfloat16", "float8_e4m3fn", "bool", "complex64"} <= kinds, kinds
        text = raises(BadUsage, lambda: model.tensors("jax"))
        assert "'np', 'pt'" in text, text
        node.verify(manifest)
        say(kinds=sorted(kinds), empty=sum(array.size == 0 for array in [tensors["empty"]]))


def mistakes(manifest: str, peer: str, cache: str, nobody: str) -> None:
    """What goes wrong has a class and the text of the command line, and nothing is lost."""
    load = libp2p_loader.load
    usage = [
        raises(BadUsage, lambda: load(cache_dir=cache)),
        raises(BadUsage, lambda: load("zz", cache_dir=cache)),
        raises(BadUsage, lambda: load(manifest, cache_dir=cache, peers="127.0.0.1:4201")),
        raises(BadUsage, lambda: load(cache_dir=cache, contract="0x12", rpc_urls="http://127.0.0.1:1")),
        raises(BadUsage, lambda: load(manifest, cache_dir=cache, wait=-1)),
        raises(BadUsage, lambda: load(manifest, cache_dir=cache, files="[")),
    ]
    raises(TypeError, lambda: load(manifest, cache_dir=cache, peer="…"))
    unavailable = raises(Unavailable, lambda: load(manifest, cache_dir=cache, peers=nobody, wait=0.2, mdns=False))
    assert nobody in unavailable, unavailable
    assert issubclass(Unavailable, LoaderError)
    node = libp2p_loader.Node(cache_dir=cache, peers=peer, mdns=False)
    raises(TypeError, lambda: pickle.dumps(node))
    model = node.load(manifest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of a fork beside threads
        child = os.fork()
    if child == 0:
        # Without the node's threads it is refused in words, and a model is not. Closing leaves the parent's alone.
        text = raises(BadUsage, lambda: node.load(manifest))
        node.close()
        os._exit(0 if "spawn" in text and len(bytes(model.files["config.json"].view)) > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    sockets = list(pathlib.Path(cache, "run").glob(f"{os.getpid()}*"))
    assert sockets, "its socket for `loader status` is there"
    assert node.status["peer_id"] == node.peer_id
    # A call that waits ends when the node is closed.
    waiting = []
    thread = threading.Thread(
        target=lambda: waiting.append(raises(BadUsage, lambda: node.load("cd" * 32))), daemon=True
    )
    thread.start()
    node.close()
    thread.join()
    assert "closed" in waiting[0], waiting
    node.close()
    raises(BadUsage, lambda: node.load(manifest))

    # A byte that rots on the disk, behind a model that is loaded.
    checked = load(manifest, cache_dir=cache, verify="load")
    usage.append(raises(BadUsage, lambda: load(manifest, cache_dir=cache, verify="always")))
    path = max(model.files.values(), key=lambda file: file.size).path
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    refused = raises(Integrity, lambda: checked.files[path.name].view)
    assert "piece" in refused and path.name in refused, refused
    assert checked.files["config.json"].view == model.files["config.json"].view, "the rest is right"
    del model, checked
    with libp2p_loader.Node(cache_dir=cache, peers=peer, mdns=False) as node:
        integrity = raises(Integrity, lambda: node.verify(manifest))
        assert "piece" in integrity, integrity
        # Loading heals it.
        node.load(manifest)
        node.verify(manifest)
    say(usage=usage, unavailable=unavailable, integrity=integrity)


def stream(manifest: str, peer: str, nobody: str, cache: str) -> None:
    """Tensors that come while their model is fetched."""
    settings = dict(peers=peer, mdns=False)
    at = lambda name: dict(settings, cache_dir=os.path.join(cache, name))  # noqa: E731
    with libp2p_loader.stream(manifest, **at("all")) as tensors:
        assert tensors.model is None
        seen = list(tensors)
        assert list(tensors) == []
    model = tensors.model
    assert model.is_complete and not model.report["from_cache"]
    facts = model.tensors()
    assert [name for name, _ in seen] == [name for name, _ in model.stream()], "in the order of the files"
    assert {name for name, _ in seen} == set(facts)
    for name, array in [*seen, *model.stream(verify=True)]:
        assert array.tobytes() == bytes(facts.bytes(name)), name
        if not facts.dtype(name).startswith(("F4", "F6_")):
            assert array.dtype == facts[name].dtype and array.shape == facts[name].shape, name
    one = next(name for name, array in seen if array.ndim > 1 and array.shape[0] > 1)
    assert [name for name, _ in model.stream([one])] == [one]
    assert "no tensor" in raises(BadUsage, lambda: model.stream("nothing-*"))

    # From the cache, hashed on the way.
    again = libp2p_loader.stream(manifest, verify=True, **at("all"))
    assert [name for name, _ in again] == [name for name, _ in seen] and again.model.report["from_cache"]

    # Only some of them, and only rows.
    with libp2p_loader.Node(**at("some")) as node:
        some = node.stream(manifest, names=[one], dim0=(0, 1))
        (name, rows), = some
        assert name == one and some.model is None
        assert rows.tobytes() == facts[one][0:1].tobytes()

        async def take() -> list:
            return [name async for name, _ in node.stream(manifest)]

        assert asyncio.run(take()) == [name for name, _ in seen]
        refused = raises(BadUsage, lambda: list(node.stream(manifest, names="nothing-*")))
        assert "nothing-*" in refused, refused
        raises(BadUsage, lambda: node.stream(manifest, device="cuda:0"))

    # Ended early, and gone on with.
    with libp2p_loader.stream(manifest, **at("early")) as early:
        next(early)
    assert raises(StopIteration, lambda: next(early)) == ""
    assert len(list(libp2p_loader.stream(manifest, **at("early")))) == len(seen)

    lost = libp2p_loader.stream(manifest, peers=nobody, mdns=False, wait=0.1, cache_dir=os.path.join(cache, "lost"))
    unavailable = raises(Unavailable, lambda: next(lost))
    say(tensors=len(seen), unavailable=unavailable)


def interrupted(manifest: str, nobody: str, cache: str) -> None:
    """Ctrl-C and cancelled tasks end a load that would wait for minutes."""
    settings = dict(peers=nobody, wait=600, mdns=False, cache_dir=cache)
    node = libp2p_loader.Node(**settings)
    began = []

    def once_it_loads(signal_: int) -> None:
        """Signals this process when a load of the node is under way."""

        def send() -> None:
            while not node.status["loading"]:
                pass
            began.append(time.monotonic())
            os.kill(os.getpid(), signal_)

        threading.Thread(target=send, daemon=True).start()

    once_it_loads(signal.SIGINT)
    raises(KeyboardInterrupt, lambda: node.load(manifest))
    ctrl_c_s = time.monotonic() - began[-1]

    async def cancelled() -> float:
        task = asyncio.create_task(node.load_async(manifest))
        while not node.status["loading"]:
            await asyncio.sleep(0)
        began = time.monotonic()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return time.monotonic() - began
        raise AssertionError("it was not cancelled")

    def angry(_: Progress) -> None:
        raise ValueError("enough")

    raises(ValueError, lambda: libp2p_loader.load(manifest, progress=angry, **settings))

    # A signal's handler may use the node, and close it.
    cancel_s = asyncio.run(cancelled())
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: (seen.append(node.addresses), node.close()))
    once_it_loads(signal.SIGTERM)
    raises(BadUsage, lambda: node.load(manifest))
    assert seen == [[]], seen
    say(ctrl_c_s=ctrl_c_s, cancel_s=cancel_s)


def watch(contract: str, rpc: str, peer: str, cache: str) -> None:
    """Two versions, one after the other, each told once it is loaded; a server keeps answering meanwhile."""
    settings = dict(contract=contract, rpc_urls=rpc, block_tag="latest", peers=peer, cache_dir=cache, mdns=False)
    settings.update(poll_interval=0.2)
    current, answers, done = [], [], threading.Event()

    def serve() -> None:
        while not done.is_set():
            if current:
                answers.append(bytes(current[-1].files["version.txt"].view))

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with libp2p_loader.Node(**settings) as node:
        for named, model in node.watch():
            assert named.manifest == model.digest and named.chain_id == 31337
            current.append(model)
            say(ready=model.digest)
            if len(current) == 2:
                break

        async def first() -> str:
            async for named_model in node.watch_async():
                return named_model.model.digest
            raise AssertionError("it ended")

        again = asyncio.run(first())
        ended = []
        follower = threading.Thread(target=lambda: ended.extend(node.watch()), daemon=True)
        follower.start()
    follower.join()  # closing the node ends it
    assert len(ended) <= 1
    done.set()
    server.join()
    assert again == current[1].digest
    versions = list(dict.fromkeys(answers))
    assert versions in ([b"1", b"2"], [b"1"]), versions
    assert bytes(current[0].files["version.txt"].view) == b"1", "the one before stays mapped"
    say(answers=len(answers))


def server(contract: str, rpc: str, peer: str, cache: str) -> None:
    """The example server: it swaps models while clients keep asking, and loses no request."""
    import http.client
    import socket

    import uvicorn

    os.environ.update(CONTRACT=contract, RPC_URLS=rpc, PEERS=peer, CACHE_DIR=cache, BLOCK_TAG="latest", MDNS="no")
    os.environ.update(POLL_INTERVAL="0.2")
    import server as example

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(example.app, log_level="error"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    answers, done = [], threading.Event()

    def ask() -> None:
        # Waits in the queue of the socket until the first model is there.
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not done.is_set():
            body = json.dumps({"sentences": ["Peers hand out the weights of a model."]})
            connection.request("POST", "/embed", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    [client.start() for client in clients]
    seen: list = []
    while len(seen) < 2:
        time.sleep(0.01)
        for status, answer in answers[:]:
            assert status == 200, answer
            if answer["model"] not in seen:
                seen.append(answer["model"])
                say(serving=answer["model"])
    done.set()
    [client.join() for client in clients]
    running.should_exit = True
    thread.join()
    assert {status for status, _ in answers} == {200}
    vectors = [answer["embeddings"][0] for _, answer in answers]
    assert np.allclose(vectors, vectors[0]), "the second version has another configuration, and the same weights"
    say(requests=len(answers))


def blobs(cache: str, blob_dir: str, peers: list, theirs: str, shared: str, pushed: str) -> None:
    """A node in the place of the existing nodes' blob store: put and served, asked for and checked, told and heard."""
    settings = dict(cache_dir=cache, mdns=False, listen="/ip4/127.0.0.1/tcp/0", peers=peers)
    with libp2p_loader.Node(**settings) as node:
        assert "folder" in raises(BadUsage, node.blob_store)
    with libp2p_loader.Node(blob_dir=blob_dir, blob_dir_bytes=3_000_000, **settings) as node:
        store = node.blob_store(max_bytes=2_000_000)
        # What the folder had before is there.
        assert store and store.list_hashes() == [theirs] and store.has(theirs) and store.get(theirs) == b"theirs"
        blob = b"what is put" * 1000
        digest = store.put(blob)
        assert digest == store.put(blob) == store.add_bytes(bytearray(blob)) == hashlib.sha256(blob).hexdigest()
        assert digest == store.compute_cid(blob) == store.compute_hash(blob)
        assert type(store.get_bytes(digest)) is bytes and store.get(digest) == store.get_bytes_local(digest) == blob
        named = store.add_json({"b": 1, "a": [None, 0.5]})
        assert store.get_json(named) == {"a": [None, 0.5], "b": 1}
        assert store.get(named) == b'{"a": [null, 0.5], "b": 1}'
        assert store.get_json(digest) is None and store.add_file("/not/there") is None
        assert store.add_file(pathlib.Path(blob_dir, digest)) == digest
        assert store.put(b"") == hashlib.sha256(b"").hexdigest() and store.get(store.put(b"")) == b""
        assert len(store) == 4 and store.delete(named) and not store.delete(named) and not store.has(named)
        for odd in ("", "..", digest.upper(), "zz" * 32, "\0"):
            assert store.get(odd) is None and not store.has(odd) and not store.delete(odd), odd
        assert "2000000" in raises(BadUsage, lambda: store.put(bytes(2_000_001)))
        store.put(bytes(2_000_000))
        assert "no room" in raises(LoaderError, lambda: store.put(b"x" * 2_000_000))

        # Some peers lie, one of them is right; several threads ask at the same time.
        assert not store.has(shared) and store.get_bytes_local(shared) is None
        got = []
        threads = [threading.Thread(target=lambda: got.append(store.get(shared))) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert [hashlib.sha256(blob).hexdigest() for blob in got] == [shared] * 4
        assert store.has(shared) and shared in store.list_hashes()
        # Nobody has that.
        assert node.blob_store(timeout=0.5).get("ab" * 32) is None
        say(address=node.addresses[0], put=digest)

        # A peer comes, and tells what it has.
        while (heard := store.get(pushed)) is None:
            pass
        assert hashlib.sha256(heard).hexdigest() == pushed
        small = node.blob_store(max_bytes=10)
        assert "10" in raises(BadUsage, lambda: small.get(digest))
    assert "closed" in raises(BadUsage, lambda: store.put(b"late"))
    say(blobs=len(os.listdir(blob_dir)))


def docs(page: str, manifest: str, contract: str, rpc: str, peers: list, cache: str) -> None:
    """The code of a page of the documentation, one block after the other, with what there is here."""
    blocks = re.findall(r"^```python\n(.*?)^```", pathlib.Path(page).read_text(), re.DOTALL | re.MULTILINE)
    known = dict(manifest=manifest, contract=contract, rpc_urls=[rpc], peers=peers, cache_dir=cache)
    load = libp2p_loader.load
    for number, block in enumerate(blocks):
        # What it is like elsewhere, and what it is here.
        block = re.sub(r'"0x[0-9a-fA-F]{40}"', repr(contract), block)
        block = re.sub(r'rpc_urls=\[[^]]*\]', f"rpc_urls={[rpc]!r}", block)
        block = re.sub(r'peers=\[[^]]*\]', f"peers={peers!r}, cache_dir=cache_dir", block)
        block = block.replace("cache_dir=cache_dir", "cache_dir=cache_dir, mdns=False")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(block, f"{page}, block {number}", "exec"), known)
    assert libp2p_loader.load is load
    say(blocks=len(blocks))


if __name__ == "__main__":
    globals()[sys.argv[1]](**json.loads(sys.argv[2]))
