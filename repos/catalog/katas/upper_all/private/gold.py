def upper_all(words):
    return [w.upper() for w in words]
