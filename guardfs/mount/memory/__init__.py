"""What a daemon leaves to the next one on the same mount, should it die: kept outside of it, at every step.

store.py      records in a memfd that the supervisor holds
nodes.py      node ids and open files
requests.py   the request that is being answered: what it was about to do, and what came of it
again.py      a request that comes a second time
fences.py     the fence machine, transcript by transcript
views.py      what views of transcripts are, beyond what the journal says
restore.py    puts it all together again
"""
