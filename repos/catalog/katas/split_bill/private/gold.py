def split_bill(total, people):
    return total / people
