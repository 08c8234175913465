# SPDX-License-Identifier: Apache-2.0
"""One framework's models behind one flat vector: a backend per file, imported only inside a party."""
