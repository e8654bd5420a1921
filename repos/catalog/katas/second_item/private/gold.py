def second_item(items):
    return items[1]
