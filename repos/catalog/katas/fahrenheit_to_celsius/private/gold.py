def fahrenheit_to_celsius(f):
    return (f - 32) * 5 / 9
