def test_1(f):
    assert f('abc') == 'b'


def test_2(f):
    assert f('x') == 'x'


def test_3(f):
    assert f('hello') == 'l'


def test_4(f):
    assert f('1234567') == '4'
