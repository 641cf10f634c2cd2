//! A libp2p swarm that fetches and serves byte ranges of blobs.
