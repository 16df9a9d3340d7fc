import JSON
import KVQuantization

/// Known rows and what every recipe must make of them, from a file of the schema
///
///     {"cases": [{"x": HEX, "g": HEX, RECIPE: {"codes": HEX, "scales": HEX, "decoded": HEX}, ...}, ...]}
///
/// `x`, `g` and `decoded` are binary32 bit patterns of eight hex digits, most significant first; `codes` and `scales` are bytes
/// in memory order, `scales` only for recipes with block scales. RECIPE is a name or alias of `KVRecipe`. `g` is the decode
/// scale of nvfp4 and nvfp4_4over6; fp8_e4m3 is taken with factor 1.
public struct GoldenFormats: Sendable {
  /// A row and what each recipe must make of it.
  public struct Case: Sendable {
    public let row: [Float]
    public let decodeScale: Float
    public let expectations: [Expectation]
  }

  /// One recipe's bytes, and what they decode to.
  public struct Expectation: Sendable {
    public let recipe: KVRecipe
    public let encoded: KVRecipe.EncodedRow
    public let decoded: [Float]
  }

  public let cases: [Case]

  /// Reads a file.
  /// - Throws: `CheckpointError.json` for a missing file or one that isn't JSON, `.missingKey` and `.invalidValue` for one that
  ///   doesn't follow the schema.
  public init(contentsOf path: String) throws(CheckpointError) {
    let document: JSONValue
    do {
      document = try JSONValue.parse(contentsOf: path)
    } catch {
      throw .json(path: path, error)
    }
    try self.init(document, path: path)
  }

  /// - Parameter path: names the source in errors.
  public init(_ document: JSONValue, path: String) throws(CheckpointError) {
    guard let list = document["cases"] else { throw .missingKey("cases", path: path) }
    guard let elements = list.arrayValue, !elements.isEmpty else {
      throw .invalidValue(
        key: "cases", path: path, expected: "an array of at least one case",
        found: list.arrayValue == nil ? list.kindName : "an empty array")
    }
    var cases: [Case] = []
    for (index, element) in elements.enumerated() {
      cases.append(try GoldenReader(path: path, place: "cases[\(index)]").readCase(element))
    }
    self.cases = cases
  }
}

/// Reads one case; `place` says where, for errors.
private struct GoldenReader {
  let path: String
  let place: String

  func readCase(_ element: JSONValue) throws(CheckpointError) -> GoldenFormats.Case {
    guard let members = element.objectValue else { throw invalid("", expected: "an object", found: element.kindName) }
    let row = try floats(element, "x")
    let scales = try floats(element, "g")
    guard let g = scales.first, scales.count == 1, KVRecipe.decodeScaleRange.contains(g) else {
      throw invalid(".g", expected: "one positive normal float", found: "\(scales)")
    }
    var expectations: [GoldenFormats.Expectation] = []
    for (name, expectation) in members where expectation.objectValue != nil {
      expectations.append(try readExpectation(expectation, name: name, dimension: row.count))
    }
    guard !expectations.isEmpty else {
      throw invalid("", expected: "an object with at least one recipe", found: "none among its keys")
    }
    return GoldenFormats.Case(row: row, decodeScale: g, expectations: expectations)
  }

  private func readExpectation(
    _ element: JSONValue, name: String, dimension: Int
  ) throws(CheckpointError) -> GoldenFormats.Expectation {
    let recipe: KVRecipe
    do {
      recipe = try KVRecipe.named(name)
      try recipe.validate(dimension: dimension)
    } catch {
      throw invalid(".\(name)", expected: "a recipe that fits the row", found: error.description)
    }
    let codes = try bytes(element, "codes", within: name)
    let scales = recipe.blockSize == nil ? [] : try bytes(element, "scales", within: name)
    let decoded = try floats(element, "decoded", within: name)
    let (codeBytes, scaleBytes) = (recipe.codeBytes(dimension: dimension), recipe.scaleBytes(dimension: dimension))
    guard codes.count == codeBytes, scales.count == scaleBytes, decoded.count == dimension else {
      throw invalid(
        ".\(name)",
        expected: "\(codeBytes) bytes of codes, \(scaleBytes) of scales and \(dimension) decoded values",
        found: "\(codes.count), \(scales.count) and \(decoded.count)")
    }
    return GoldenFormats.Expectation(recipe: recipe, encoded: .init(codes: codes, scales: scales), decoded: decoded)
  }

  private func floats(_ element: JSONValue, _ key: String, within name: String? = nil) throws(CheckpointError)
    -> [Float]
  {
    let bytes = try bytes(element, key, within: name)
    guard bytes.count.isMultiple(of: 4), !bytes.isEmpty else {
      throw invalid(
        keyPath(key, within: name), expected: "floats of eight hex digits each", found: "\(2 * bytes.count) digits")
    }
    return stride(from: 0, to: bytes.count, by: 4).map { start in
      Float(bitPattern: bytes[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) })
    }
  }

  private func bytes(_ element: JSONValue, _ key: String, within name: String? = nil) throws(CheckpointError) -> [UInt8]
  {
    let keyPath = keyPath(key, within: name)
    guard let value = element[key] else { throw .missingKey(place + keyPath, path: path) }
    guard let text = value.stringValue else {
      throw invalid(keyPath, expected: "a string of hex digits", found: value.kindName)
    }
    let digits = text.utf8.map(hexDigit)
    guard digits.count.isMultiple(of: 2) else {
      throw invalid(keyPath, expected: "an even number of hex digits", found: "\(digits.count)")
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    for start in stride(from: 0, to: digits.count, by: 2) {
      guard let high = digits[start], let low = digits[start + 1] else {
        throw invalid(keyPath, expected: "hex digits", found: "another character near position \(start)")
      }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  private func hexDigit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  private func keyPath(_ key: String, within name: String?) -> String { (name.map { ".\($0)" } ?? "") + ".\(key)" }

  private func invalid(_ keyPath: String, expected: String, found: String) -> CheckpointError {
    .invalidValue(key: place + keyPath, path: path, expected: expected, found: found)
  }
}
