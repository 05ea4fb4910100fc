"""The error that users see as one sentence."""


class UserError(ValueError):
    """What was asked for cannot be done: the message says what is wrong, where, and what to do, in one sentence.

    The library raises it at its border, where arguments, files and data come in. The command line prints the sentence
    alone; every other error is a bug and keeps its traceback.
    """
