def comma_join(words):
    return ','.join(words)
