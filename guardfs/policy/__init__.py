"""Policy files: who is who, and what is done about it.

model.py      what a policy says: plain data, the schema's one source           pure
facts.py      what a decision is made from, and the decision                    pure
decide.py     a policy compiled into closures: facts -> lane, rule, verdict     pure
load.py       from a file (or a shipped policy's name) to a policy, or to all its problems at once
"""
