def test_1(f):
    assert f('a,b,c') == ['a', 'b', 'c']


def test_2(f):
    assert f('x') == ['x']


def test_3(f):
    assert f('1,2') == ['1', '2']


def test_4(f):
    assert f('red,green') == ['red', 'green']
