# SPDX-License-Identifier: Apache-2.0
"""The `party.toml` that `fedray party init` writes: every setting there is, with what it means."""

TEMPLATE = """\
# What the operator of this machine has laid down for its party. No driver can loosen it, and each is told of it.
# It is read when a session starts, names of data whenever something is loaded. A line that is left out, or stands
# behind a '#', leaves the matter to the driver.

name = "NAME"

# Folder of the party's identity key, its roster of the others, and, in policy.toml there, what it accepts of sums.
# Without this line the party makes a new key for each session: a simulation.
keys = "keys"

# Folder of this party's parts of checkpoints: optimizer, local tensors, random state, all of them made of its rows.
# It is made where it is not there. Without this line they lie in 'checkpoints' in the key folder.
# checkpoints = "/data/checkpoints"

# "strict": no raw value leaves, whatever the driver asks for. "default": raw values leave when it asks for them.
egress = "strict"

# "registered": load() opens what is named under [data] and nothing else. "any": any file that this user can read.
# (It guards against mistakes. A function of the driver's that runs here can open files by itself.)
paths = "registered"

# Whether what the party's functions print may be shown at the driver. false: it stays in a file here.
printing = true

# How many sessions may run side by side. With keys it is one: one identity takes part in one session at a time.
sessions = 1

[limits]
# Most compute threads, and most memory that the party's process takes beyond what it begins with.
# threads = 4
# memory = "8 GB"

[data]
# Names that a driver loads by, load({party: "mnist_train"}), and the files here that they stand for.
# mnist_train = "/data/mnist_train.npy"
"""
