"""Callbacks that are options of `callbacks=`; each module is imported when the program starts."""
