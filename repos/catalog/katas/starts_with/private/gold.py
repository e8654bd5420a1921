def starts_with(s, prefix):
    return s.startswith(prefix)
