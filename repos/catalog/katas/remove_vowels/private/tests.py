def test_1(f):
    assert f('hello') == 'hll'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('xyz') == 'xyz'


def test_4(f):
    assert f('aeiou') == ''


def test_5(f):
    assert f('banana') == 'bnn'
