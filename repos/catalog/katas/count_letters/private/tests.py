def test_1(f):
    assert f('aab') == {'a': 2, 'b': 1}


def test_2(f):
    assert f('') == {}


def test_3(f):
    assert f('x') == {'x': 1}


def test_4(f):
    assert f('hello') == {'h': 1, 'e': 1, 'l': 2, 'o': 1}
