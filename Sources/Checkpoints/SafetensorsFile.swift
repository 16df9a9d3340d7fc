import JSON

/// A safetensors file, mapped and not copied: 8 bytes of header length (little-endian), a JSON header
/// {name: {dtype, shape, data_offsets: [begin, end]}}, then the tensors' bytes without gaps (safetensors README, "Format").
///
/// Everything the header says is checked against the file before any tensor is handed out.
public final class SafetensorsFile: Sendable {
  /// The format's own limit.
  public static let maximumHeaderBytes = 100_000_000

  public let path: String
  /// Names in the order of their bytes.
  public let tensorNames: [String]
  /// Free text of the writer (`__metadata__`).
  public let metadata: [String: String]
  private let tensors: [String: TensorView]

  /// - Throws: `CheckpointError.unreadable` or `.invalidTensorFile` with the first fault found.
  public init(path: String) throws(CheckpointError) {
    let file = try MappedFile(path: path)
    let header = try SafetensorsHeader(bytes: file.bytes, path: path)
    self.path = path
    var names: [String] = []
    var tensors: [String: TensorView] = [:]
    for entry in header.entries {
      let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[entry.range])
      names.append(entry.name)
      let view = TensorView(name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes: bytes, file: file)
      // Keys that differ as bytes may still be equal as Unicode.
      if tensors.updateValue(view, forKey: entry.name) != nil {
        throw .invalidTensorFile(path: path, reason: "it names tensor '\(entry.name)' twice")
      }
    }
    tensorNames = names
    metadata = header.metadata
    self.tensors = tensors
  }

  /// The tensor of a name.
  /// - Throws: `CheckpointError.missingTensor`.
  public func tensor(named name: String) throws(CheckpointError) -> TensorView {
    guard let view = tensors[name] else { throw .missingTensor(name: name, path: path) }
    return view
  }

  public func contains(_ name: String) -> Bool { tensors[name] != nil }
}

/// The checked header of a safetensors file.
package struct SafetensorsHeader {
  package struct Entry {
    package let name: String
    package let dtype: TensorType
    package let shape: [Int]
    /// Bytes of the tensor, counted from the start of the file.
    package let range: Range<Int>
  }

  package private(set) var entries: [Entry] = []
  package private(set) var metadata: [String: String] = [:]
  private let path: String

  /// - Parameters:
  ///   - bytes: the file, or its beginning up to the end of the header.
  ///   - byteCount: of the file, where `bytes` are not all of it.
  package init(
    bytes: UnsafeRawBufferPointer, path: String, byteCount: Int? = nil
  ) throws(CheckpointError) {
    self.path = path
    let byteCount = byteCount ?? bytes.count
    guard bytes.count >= 8 else { throw fault("expected at least 8 bytes of header length, found \(bytes.count)") }
    let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    guard length <= SafetensorsFile.maximumHeaderBytes else {
      throw fault("the header claims \(length) bytes, more than the limit of \(SafetensorsFile.maximumHeaderBytes)")
    }
    let start = 8 + Int(length)
    guard start <= bytes.count else {
      throw fault("the header claims \(length) bytes, but the file has only \(byteCount); it may be truncated")
    }
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue.parse(
        bytes: UnsafeRawBufferPointer(rebasing: bytes[8..<start]), maximumDepth: 16, refusesDuplicateKeys: true)
    } catch { throw fault("its header is not readable: \(error)") }
    guard case .object(let members) = document else {
      throw fault("expected its header to be an object, found \(document.kindName)")
    }
    let dataBytes = byteCount - start
    for (name, value) in members {
      if name == "__metadata__" {
        for (key, text) in value.objectValue ?? JSONObject() { metadata[key] = text.stringValue ?? text.serialized() }
      } else {
        entries.append(try entry(name, value, start: start, dataBytes: dataBytes))
      }
    }
    entries.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
    try checkCoverage(start: start, end: byteCount)
  }

  private func entry(
    _ name: String, _ value: JSONValue, start: Int, dataBytes: Int
  ) throws(CheckpointError) -> Entry {
    guard let dtypeName = value["dtype"]?.stringValue else { throw fault("tensor '\(name)' has no dtype") }
    guard let dtype = TensorType(rawValue: dtypeName) else {
      throw fault("tensor '\(name)' has the unknown dtype '\(dtypeName)'")
    }
    guard let dimensions = value["shape"]?.arrayValue else { throw fault("tensor '\(name)' has no shape") }
    guard dimensions.count <= 16 else {
      throw fault("tensor '\(name)' has \(dimensions.count) dimensions, more than 16")
    }
    var shape: [Int] = []
    var bits = dtype.bitWidth
    for dimension in dimensions {
      guard case .integer(let wide) = dimension, let size = Int(exactly: wide), size >= 0 else {
        throw fault("tensor '\(name)' has a dimension that is no size: \(dimension.serialized())")
      }
      let (product, overflow) = bits.multipliedReportingOverflow(by: size)
      guard !overflow else { throw fault("the shape of tensor '\(name)' is too large for any memory") }
      shape.append(size)
      bits = product
    }
    guard bits % 8 == 0 else { throw fault("tensor '\(name)' does not end on a whole byte") }
    guard let offsets = value["data_offsets"]?.arrayValue, offsets.count == 2,
      case .integer(let begin) = offsets[0], case .integer(let end) = offsets[1]
    else { throw fault("tensor '\(name)' has no data_offsets of two integers") }
    guard begin >= 0, begin <= end, end <= dataBytes else {
      throw fault(
        "tensor '\(name)' has offsets [\(begin), \(end)] outside of the file's \(dataBytes) bytes of data; "
          + "it may be truncated")
    }
    guard end - begin == bits / 8 else {
      throw fault(
        "tensor '\(name)' of \(dtypeName) \(shape) needs \(bits / 8) bytes, but its offsets hold \(end - begin)")
    }
    return Entry(name: name, dtype: dtype, shape: shape, range: start + Int(begin)..<start + Int(end))
  }

  /// The tensors must lie one behind the other: no overlap, no gap, nothing after the last.
  private func checkCoverage(start: Int, end: Int) throws(CheckpointError) {
    var reached = start
    var previous = ""
    for entry in entries {
      if entry.range.lowerBound < reached { throw fault("tensors '\(previous)' and '\(entry.name)' overlap") }
      if entry.range.lowerBound > reached {
        throw fault("\(entry.range.lowerBound - reached) bytes before tensor '\(entry.name)' belong to no tensor")
      }
      reached = entry.range.upperBound
      previous = entry.name
    }
    if reached < end { throw fault("\(end - reached) bytes after the last tensor belong to no tensor") }
  }

  private func fault(_ reason: String) -> CheckpointError { .invalidTensorFile(path: path, reason: reason) }
}
