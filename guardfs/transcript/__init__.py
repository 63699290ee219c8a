"""What is written: names of transcripts and locks, records. Pure."""
