import CSIMD
import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// A `CacheFixture`'s pages in GPU memory.
extension CacheFixture {
  /// Every page of the CPU's pool, converted to the kernels' byte order.
  func records() -> [[UInt8]] {
    let converter = RecordConverter(layout: layout)
    return (0..<pool.pageCount).map { page in
      var record = [UInt8](repeating: 0, count: pool.recordBytes)
      var codes = [UInt8](repeating: 0, count: 4 * layout.headDimension)
      var scales = codes
      record.withUnsafeMutableBufferPointer { record in
        guard let target = record.baseAddress else { return }
        for region in layout.regions {
          var source = nb_region(region, record: pool.record(page: page, layer: 0))
          for token in 0..<layout.pageSize {
            nb_region_gather_row(&source, Int32(token), &codes, &scales)
            converter.scatter(
              codes: codes, scales: scales, isKey: region.kind == .key, head: region.head, token: token, into: target)
          }
        }
      }
      return record
    }
  }

  /// The same cache on the GPU, page for page.
  func upload(to bench: DeviceBench) throws(CUDAError) -> DevicePagePool {
    let pool = try DevicePagePool(
      bench.context, layout: layout, layerCount: 1, pageCount: self.pool.pageCount, scales: self.pool.scales)
    for (page, record) in records().enumerated() { try pool.upload(record, toPage: page, on: bench.stream) }
    return pool
  }
}

extension DevicePagePool {
  /// Fills the pool's pages, in an order that has nothing to do with their numbers, with copies of a run of pages.
  /// - Returns: the pages in that order: entry i holds record i % records.count.
  func fill(
    withCopiesOf records: [[UInt8]], random: inout RandomNumbers, on stream: borrowing CUDAStream
  ) throws(CUDAError) -> [Int32] {
    let slots = Array(Int32(0)..<Int32(pageCount)).shuffled(using: &random)
    for (index, slot) in slots.enumerated() {
      if index < records.count {
        try upload(records[index], toPage: Int(slot), on: stream)
      } else {
        try copyPage(Int(slots[index % records.count]), to: Int(slot), on: stream)
      }
    }
    return slots
  }

  func upload(_ record: [UInt8], toPage page: Int, on stream: borrowing CUDAStream) throws(CUDAError) {
    let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: record.count)
    defer { memory.deallocate() }
    _ = memory.initialize(from: record)
    try upload(UnsafeBufferPointer(memory), toPage: page, layer: 0, on: stream)
    try stream.synchronize()
  }
}

/// Page tables of one launch, [batch, stride], and context lengths, in GPU memory.
struct DeviceTables: ~Copyable {
  let pages: DeviceBuffer<Int32>
  let lengths: DeviceBuffer<Int32>
  let stride: Int

  init(tables: [[Int32]], lengths: [Int], on stream: borrowing CUDAStream) throws(CUDAError) {
    let stride = tables.map(\.count).max() ?? 0
    // Entries past a request's last page must never be followed: a page far outside makes that a fault.
    let flat = tables.flatMap { $0 + [Int32](repeating: 1 << 28, count: stride - $0.count) }
    let pages = try DeviceBuffer<Int32>.holding(flat, on: stream)
    let lengths = try DeviceBuffer<Int32>.holding(lengths.map { Int32($0) }, on: stream)
    self.pages = pages
    self.lengths = lengths
    self.stride = stride
  }
}
