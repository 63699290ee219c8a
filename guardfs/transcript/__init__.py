"""What is written: names of transcripts and locks, formats, records, history and the end of a transcript. Pure."""
