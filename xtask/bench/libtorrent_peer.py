"""BitTorrent v2 with libtorrent's defaults over plain TCP, for `cargo xtask bench compare`, `far` and `folder`.

    libtorrent_peer.py make FILE TORRENT        writes a v2-only torrent of FILE, or of a folder, 1 MiB pieces
    libtorrent_peer.py seed TORRENT DIR         checks DIR, prints its port, seeds until it is killed
    libtorrent_peer.py fetch TORRENT DIR PORT…  fetches from seeders on this host, ends when all is verified and written,
                                                and prints how many seconds that took, Python's start not counted
"""

import os
import sys
import time

import libtorrent as lt

PIECE_BYTES = 1 << 20

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    # Nothing is to be found, and nobody else is to be asked.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # Plain TCP.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "out_enc_policy": lt.enc_policy.disabled,
    "in_enc_policy": lt.enc_policy.disabled,
    # All seeders have one address, and differ by port.
    "allow_multiple_connections_per_ip": True,
    "alert_mask": lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.error_notification,
}


def make(file, torrent):
    creator = lt.create_torrent(lt.list_files(file), PIECE_BYTES, lt.create_torrent.v2_only)
    lt.set_piece_hashes(creator, os.path.dirname(file))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(creator.generate()))


def start(torrent, directory):
    session = lt.session(SETTINGS)
    parameters = lt.load_torrent_file(torrent)
    parameters.save_path = directory
    # Starts at once, not when the queue of torrents is looked at next.
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    # Whoever is not named is not told of by others either: they might know a shorter way.
    parameters.flags |= lt.torrent_flags.disable_dht | lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
    return session, session.add_torrent(parameters)


def wait_for(session, kind):
    """Returns when an alert of the kind comes; ends the program when an error does."""
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                sys.exit(f"libtorrent: {alert.message()}")
            if isinstance(alert, kind):
                return


def seed(torrent, directory):
    session, handle = start(torrent, directory)
    wait_for(session, lt.torrent_finished_alert)
    print(session.listen_port(), flush=True)
    while True:
        time.sleep(3600)


def fetch(torrent, directory, *ports):
    started = time.monotonic()
    session, handle = start(torrent, directory)
    # Dialled at the next tick: half a second after the start, by default.
    for port in ports:
        handle.connect_peer(("127.0.0.1", int(port)))
    wait_for(session, lt.torrent_finished_alert)
    handle.flush_cache()
    wait_for(session, lt.cache_flushed_alert)
    print(f"{time.monotonic() - started:.3f}", flush=True)
    # Without goodbyes to peers, which can take seconds.
    os._exit(0)


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    {"make": make, "seed": seed, "fetch": fetch}[mode](*arguments)
