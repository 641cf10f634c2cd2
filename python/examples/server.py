"""A server that embeds sentences, and swaps models while it answers: no request is lost, none sees two models.

    pip install libp2p-loader fastapi uvicorn tokenizers
    CONTRACT=0x… RPC_URLS=https://… PEERS=/dns/… uvicorn server:app

    curl -d '{"sentences": ["Peers hand out the weights of a model."]}' -H 'Content-Type: application/json' localhost:8000/embed
"""

import asyncio
import contextlib
import json
import logging
import os

import bert
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

import libp2p_loader


logger = logging.getLogger(__name__)


class Embedder:
    """A model that is ready: its weights are numpy arrays over the files of the cache."""

    def __init__(self, model: libp2p_loader.Model) -> None:
        self.digest = model.digest
        self.config = json.loads(bytes(model.files["config.json"].view))
        self.tokenizer = Tokenizer.from_str(bytes(model.files["tokenizer.json"].view).decode())
        self.tokenizer.no_padding()
        self.weights = dict(model.tensors())

    def embed(self, sentences):
        return bert.embed(self.config, self.weights, self.tokenizer, sentences).tolist()


class Sentences(BaseModel):
    sentences: list[str]


def node() -> libp2p_loader.Node:
    listed = lambda name: [part for part in os.environ.get(name, "").split(",") if part]
    return libp2p_loader.Node(
        contract=os.environ["CONTRACT"],
        rpc_urls=listed("RPC_URLS"),
        peers=listed("PEERS"),
        cache_dir=os.environ.get("CACHE_DIR"),
        block_tag=os.environ.get("BLOCK_TAG", "finalized"),
        poll_interval=float(os.environ.get("POLL_INTERVAL", "12")),
        mdns=os.environ.get("MDNS", "yes") == "yes",
    )


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    """Serves from the first model on, and follows the contract meanwhile."""
    ready = asyncio.Event()

    async def follow(following: libp2p_loader.Node) -> None:
        async for named, model in following.watch_async():
            try:
                embedder = await asyncio.to_thread(Embedder, model)
            except Exception:
                logger.exception("model %s cannot be used: the one before stays", model.digest)
                continue
            # One assignment: requests that are under way keep the model that they have begun with.
            app.state.embedder = embedder
            logger.info("model %s of block %d", model.digest, named.block_number)
            ready.set()

    async with node() as following:
        task = asyncio.create_task(follow(following))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        try:
            if task.done():
                await task
            yield
        finally:
            waiting.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


app = FastAPI(lifespan=lifespan)


@app.post("/embed")
def embed(asked: Sentences) -> dict:
    embedder = app.state.embedder
    return {"model": embedder.digest, "embeddings": embedder.embed(asked.sentences)}


@app.get("/healthz")
def health() -> dict:
    return {"model": app.state.embedder.digest}
