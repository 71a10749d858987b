"""The local engine: classify and count files of any size in one process and bounded memory."""
