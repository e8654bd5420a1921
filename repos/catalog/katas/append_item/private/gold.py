def append_item(items, x):
    return items + [x]
