import CUDASupport
import KVQuantization
import PagedCache

/// The pages of a cache in GPU memory. As on the CPU, a page holds one record a layer, the layers one behind the other; the order
/// of bytes inside a record is the kernels' own (nibble_kernels.h), so records are converted where they cross the border.
public struct DevicePagePool: ~Copyable, Sendable {
  public let layout: CacheLayout
  public let layerCount: Int
  public let pageCount: Int
  /// FP32 factors, one pair a layer.
  public let scales: [DecodeScales]
  private let memory: DeviceBuffer<UInt8>

  /// Takes the memory; its contents are undefined until stored.
  /// - Throws: `.invalidPlan` for a layout that the kernels can't serve or a count mismatch, `.outOfMemory`.
  public init(
    _ context: CUDAContext, layout: CacheLayout, layerCount: Int, pageCount: Int, scales: [DecodeScales]
  ) throws(CUDAError) {
    // Any number of query heads that divides among the KV heads.
    let heads =
      switch layout {
      case .mha(let layout): layout.kvHeadCount
      case .mla: 1
      }
    try CUDAAttention.validate(layout: layout, queryHeadCount: heads)
    guard layerCount > 0, pageCount > 0, scales.count == layerCount else {
      throw .invalidPlan(
        """
        a cache of \(pageCount) pages and \(layerCount) layers with scales for \(scales.count); expected at least one page and \
        layer, and scales for each layer
        """)
    }
    let (pages, overflow) = pageCount.multipliedReportingOverflow(by: layerCount)
    let (bytes, overflowAgain) = pages.multipliedReportingOverflow(by: layout.pageSize * layout.bytesPerToken)
    guard !overflow, !overflowAgain else {
      throw .outOfMemory(bytes: .max, free: 0, total: context.device.memoryBytes)
    }
    let memory = try DeviceBuffer<UInt8>(context, count: bytes)
    self.layout = layout
    self.layerCount = layerCount
    self.pageCount = pageCount
    self.scales = scales
    self.memory = memory
  }

  public init(
    _ context: CUDAContext, layout: MHALayout, layerCount: Int, pageCount: Int, scales: [DecodeScales]
  ) throws(CUDAError) {
    try self.init(context, layout: .mha(layout), layerCount: layerCount, pageCount: pageCount, scales: scales)
  }

  public var context: CUDAContext { memory.context }
  public var byteCount: Int { memory.byteCount }
  /// Bytes of one page of one layer.
  public var recordBytes: Int { layout.pageSize * layout.bytesPerToken }
  /// Bytes from one page's record of a layer to the next page's.
  public var pageStride: Int { recordBytes * layerCount }

  /// Address of page 0's record of a layer.
  public func address(layer: Int) throws(CUDAError) -> UInt64 {
    guard layer >= 0, layer < layerCount else {
      throw .invalidPlan("there is no layer \(layer) in a cache of \(layerCount) layers")
    }
    return try memory.address(of: layer * recordBytes)
  }

  /// Copies records in the kernels' byte order to a page of a layer, and on into the pages behind if there are more.
  /// - Parameter records: whole records; of several only with one layer.
  public func upload(
    _ records: UnsafeBufferPointer<UInt8>, toPage page: Int, layer: Int = 0, on stream: borrowing CUDAStream
  ) throws(CUDAError) {
    guard records.count % recordBytes == 0, layerCount == 1 || records.count == recordBytes else {
      throw .invalidPlan("an upload of \(records.count) bytes; expected whole records of \(recordBytes)")
    }
    try memory.copy(from: records, at: page * pageStride + layer * recordBytes, on: stream)
  }

  /// Copies a page of all layers to another.
  public func copyPage(_ source: Int, to target: Int, on stream: borrowing CUDAStream) throws(CUDAError) {
    guard source != target else { return }
    try memory.copy(source * pageStride..<(source + 1) * pageStride, of: memory, at: target * pageStride, on: stream)
  }

  /// One page's record of a layer, in the kernels' byte order.
  public func record(page: Int, layer: Int = 0, on stream: borrowing CUDAStream) throws(CUDAError) -> [UInt8] {
    let start = page * pageStride + layer * recordBytes
    let bytes = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: recordBytes)
    defer { bytes.deallocate() }
    try memory.copy(start..<start + recordBytes, to: bytes, on: stream)
    return Array(bytes)
  }

  /// Sets every byte: for tests, which poison what must be written.
  public func fill(byte: UInt8, on stream: borrowing CUDAStream) throws(CUDAError) {
    try memory.fill(byte: byte, on: stream)
  }
}
