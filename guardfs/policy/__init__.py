"""Policy files: who is who, and what is done about it. The room for them; in this version the names of transcripts and
locks are built in (`guardfs.transcript.names`), and every operation passes."""
