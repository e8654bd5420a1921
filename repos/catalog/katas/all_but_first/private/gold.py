def all_but_first(items):
    return items[1:]
