def has_item(items, x):
    return x in items
