"""One module a command; each has a `command`."""

# The short help of each command, equal to the first sentence of its own help. It stands here so
# that the list of commands needs none of their modules.
SHORT_HELP = {
    "bench": "Time every task of BUNDLE, on random rows with one random target each.",
    "demo": "Serve a trained language model and ask it, in words, for likely next words.",
    "export": "Lower trained WEIGHTS into ONNX graphs over one weights file, "
    "verified before visible.",
    "inspect": "Say what the BUNDLE directory holds, and draw its hierarchy.",
    "score": "Score the rows of INPUT, a file or a folder of them, into OUTPUT.",
    "serve": "Answer over HTTP from the bundles in REPOSITORY/NAME/VERSION, or from a model folder "
    "(NAME) or one bundle.",
    "verify": "Check the BUNDLE's hashes, every task against the reference, and its text.",
}
