def hypotenuse(a, b):
    return (a * a + b * b) ** 0.5
