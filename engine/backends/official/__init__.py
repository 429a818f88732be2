"""The official compiler, mlc_llm, run in the interpreter that has it: never in ours.

Its wheels bring a package `tvm` of their own, which would overwrite apache-tvm; so it lives in another
environment, and all that is known of it comes from children.
"""
