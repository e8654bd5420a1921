def total_length(words):
    return sum(len(w) for w in words)
