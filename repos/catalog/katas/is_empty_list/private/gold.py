def is_empty_list(items):
    return len(items) == 0
